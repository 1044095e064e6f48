"""Images in and out: reading and packing datasets, generating demo datasets, writing images, sheets and videos."""
