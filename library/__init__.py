"""The mixers that come with seqdsl: `.seq` files, looked up by file stem over all folders."""
