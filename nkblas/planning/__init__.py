"""Plan selection: from a `Problem` to a `Plan`, by measurement or by the cost model.

In the order in which a problem passes them: `measured_plans` (plan files), `skinny` (products with
a short dimension), `search_space` (schedules that are compared), `schedule` (which of them are
legal), `cost_model` (what they cost) with `microarchitecture` (the measured constants), and `plan`
(a schedule applied to the problem, and the kernels that it needs).
"""
