"""Images in and out: reading sets, packing them, drawing demo sets, writing images and sheets."""
