"""The command `fastdino doctor`: what works on this machine, and which kernels can be trusted on its GPU."""
