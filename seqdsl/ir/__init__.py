"""The intermediate representation: a system of recurrence equations as one value that every pass takes and gives.

`node`, `ops`, `build`            interned expressions, the table of their operators, constructors that simplify
`system`, `sizes`, `nest`         tensors, indices and their lengths, the system; a step of a loop seen from within
`dependence`, `graphs`, `order`   distance vectors, the schedule that follows from them, what is known of positions
`state`, `beyond`, `initial`      what a mixer keeps between two calls; how parameters begin
`derivatives`, `differentiate`    the derivative of every operator; the cotangents of an equation
`reference`, `evaluate`, `interpreter`   the value of every operator, expression and system in float64: the truth
`text`, `reader`, `notation`, `show`     systems as text that reads back, expressions for people
`validate`                        what every pass must leave behind

Architecture invariant: knows what a system computes, and no class of recurrence, no form, no backend.
"""
