"""What the programs beside it are made of: loads, peers, clusters, reports. Nothing here is run by hand."""
