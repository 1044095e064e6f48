"""What this machine has for training at full speed, and whether its kernels agree with their references."""
