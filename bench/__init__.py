"""How fast the service is, with all safety on, each figure beside the limit of this machine in the same run."""
