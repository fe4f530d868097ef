"""
Fault injection: what is done to the node, and what is required of it.

A module of cases for each type of fault; `registry` lists them all, `report` writes the page.
`test/faults/run.py` runs them; `test_faults.py` runs short forms of the cheap ones.
"""
