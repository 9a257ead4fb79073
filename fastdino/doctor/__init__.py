"""The command `fastdino doctor`: what of fastdino works on this machine, and which kernels can be trusted on its GPU."""
