"""Functions that generated modules need: the compiler copies their text.

One public function per file, named as the file; it imports torch and its neighbours only. `USES` lists those that must
be copied before it.
"""
