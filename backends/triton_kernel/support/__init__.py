"""Functions with Triton kernels that stand in for functions of the torch backend: the compiler copies their text.

One public function per file, named as the file; it imports torch, triton and its neighbours only.
"""
