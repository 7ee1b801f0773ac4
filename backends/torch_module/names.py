"""Python identifiers for the users' names: the one place where a name becomes safe.

Architecture invariant: every identifier in a generated file that stems from a user's text comes from here.
"""

from __future__ import annotations

import builtins
import keyword
from collections.abc import Iterable

# What `torch.nn.Module` has already; tests compare it with the installed torch.
MODULE_ATTRIBUTES = frozenset(
    """T_destination add_module apply bfloat16 buffers call_super_init children compile cpu cuda double
    dump_patches eval extra_repr float forward get_buffer get_extra_state get_parameter get_submodule half
    init_state ipu load_state_dict modules mtia named_buffers named_children named_modules named_parameters
    parameters register_backward_hook register_buffer register_forward_hook register_forward_pre_hook
    register_full_backward_hook register_full_backward_pre_hook register_load_state_dict_post_hook
    register_load_state_dict_pre_hook register_module register_parameter register_state_dict_post_hook
    register_state_dict_pre_hook requires_grad_ reset_parameters set_extra_state set_submodule share_memory
    state_dict step to to_empty train training type xpu zero_grad""".split()
)
# What it has with an underscore in front, as the method has that computes a layer.
MODULE_INTERNALS = frozenset(
    """apply backward_hooks backward_pre_hooks buffers call_impl compiled_call_impl forward_hooks forward_hooks_always_called
    forward_hooks_with_kwargs forward_pre_hooks forward_pre_hooks_with_kwargs get_backward_hooks get_backward_pre_hooks
    get_name is_full_backward_hook load_from_state_dict load_state_dict_post_hooks load_state_dict_pre_hooks
    maybe_warn_non_full_backward_hook modules named_members non_persistent_buffers_set parameters
    register_load_state_dict_pre_hook register_state_dict_hook replicate_for_data_parallel save_to_state_dict slow_forward
    state_dict_hooks state_dict_pre_hooks version wrapped_call_impl""".split()
)
# What the generated code itself uses as a bare name.
RESERVED = frozenset(
    """torch math nn Tensor Any self state return_state cu_seqlens device dtype past matmul_dtype batch annotations
    typing Callable Sequence complex_dtype sizes out_dtype new_state to""".split()
)


def safe(name: str) -> str:
    """One identifier: dots, primes, signs become underscores; what Python or the file uses gets a trailing one."""
    text = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in name).strip("_") or "x"
    if text[0].isdigit():
        text = "x" + text
    if keyword.iskeyword(text) or keyword.issoftkeyword(text) or hasattr(builtins, text) or text in RESERVED:
        return text + "_"
    return text


def attribute(name: str) -> str:
    """A name for an attribute of a module: none that `nn.Module`, or Python's syntax, uses."""
    text = safe(name) if not name.isidentifier() or keyword.iskeyword(name) or not name.isascii() else name
    return text + "_" if text in MODULE_ATTRIBUTES or text.startswith("_") else text


def method(name: str) -> str:
    """A name for the method that computes a layer, without its underscore."""
    text = safe(name)
    return text + "_" if text in MODULE_INTERNALS else text


def quoted(text: str) -> str:
    """A string literal in double quotes, as formatters write it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' if text.isprintable() else repr(text)


def elements(items: Iterable[str]) -> str:
    """The elements of a tuple as formatters write them: `a, b`, or `a,`."""
    texts = list(items)
    return f"{', '.join(texts)}{',' if len(texts) == 1 else ''}"


def tuple_text(items: Iterable[str]) -> str:
    """A tuple as formatters write it."""
    return f"({elements(items)})"


class Names:
    """Unique identifiers within one scope: the first taker of a name keeps it, later ones get a number."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self.taken = set(taken)

    def fresh(self, wanted: str) -> str:
        """An identifier like `wanted` that nothing else in the scope has."""
        base = safe(wanted)
        name, number = base, 1
        while name in self.taken:
            number += 1
            name = f"{base}_{number}"
        self.taken.add(name)
        return name

    def passing(self, wanted: str) -> str:
        """The same for a variable that lives within one statement: it stays free for others."""
        name = self.fresh(wanted)
        self.taken.discard(name)
        return name

    def copy(self) -> Names:
        """For an inner scope: what is taken outside stays taken."""
        return Names(self.taken)
