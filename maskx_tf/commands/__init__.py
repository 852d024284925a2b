"""The bodies of the subcommands, one file for each or for each group; `maskx_tf.cli` is their frame."""
