"""The grammar of the seq language, `seq.lark`: data, read with `importlib.resources.files("seqdsl.grammar")`."""
