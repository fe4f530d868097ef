"""
Faults done to the node on purpose, and what is demanded of it all the same.

A module of cases for each kind of fault; `catalogue` lists them all, `report` writes what
came out. Run by `test/faults/run.py`; short forms of the cheap ones by `test_faults.py`.
"""
