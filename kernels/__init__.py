"""Triton kernels: a file per operation with its kernel, its launcher and its autograd function."""
