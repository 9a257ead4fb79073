"""What proves Triton kernels on a machine without a GPU.

`interpreter` makes Triton's interpreter compute bfloat16 as hardware does, `probe` counts and checks every access of an
interpreted kernel, `compiler` compiles for real GPUs and reads the registers, spills and widths of the machine code.
"""
