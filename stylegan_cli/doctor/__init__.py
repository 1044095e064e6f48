"""Whether this machine can train at full speed, and whether its kernels match their references."""
