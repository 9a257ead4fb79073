"""Several processes that train as one: who they are, how they are started, and what they tell one another."""
