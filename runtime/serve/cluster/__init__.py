"""Creating, finding, asking and deleting the engines' Serve applications; what the cluster has."""
