"""Functions that generated modules need: the compiler copies their text.

One public function per file, named as the file; it imports torch, its neighbours and what runs calls only, which are
copied with it.
"""
