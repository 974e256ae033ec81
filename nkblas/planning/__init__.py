"""From a `Problem` to a `Plan`: legal schedules, their costs, and measured plans."""
