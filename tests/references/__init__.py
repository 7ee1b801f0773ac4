"""Independent references for the library: `references/<folder>/<stem>.py` for `library/<folder>/<stem>.seq`.

Each is written from the published equations, not from the `.seq` file: numpy in float64, a plain loop over time,
nothing of seqdsl imported. For a mixer `m` a file holds

    m(inputs, params, sizes)   -> outputs by name
    m_example(rng, T)          -> (inputs, params, sizes), small and well conditioned, T tokens

All three are dicts by name. There is no batch axis; a tensor's axes stand in the order of the mixer's header,
`q[t,h,d]`. `sizes` holds the mixer's options. A parameter is called as the module calls it: a linear is
`<left side>.weight` (`_2`, `_3` for further ones of the same equation) with the axes per, contracted, made, and `.bias`
with those it makes; the parameters of a called mixer stand under the left side's name, `y.log_dt`.

`test_fixtures.py` holds the references themselves to fixtures, to torch.nn and to closed forms.
"""
