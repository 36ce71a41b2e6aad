"""The columns of a result: what is measured for them, and how they are computed."""
