"""Where the parts of a job run that is divided: the tasks of a cluster."""
