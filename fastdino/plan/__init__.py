"""Before a run: how much memory it will take, and which settings fit into what there is."""
