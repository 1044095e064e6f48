"""Pictures in and out: reading sets, packing them, drawing demo sets, writing pictures and sheets."""
