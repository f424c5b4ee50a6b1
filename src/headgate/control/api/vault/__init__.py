"""/admin/v1: the vault: providers' keys, what seals them, and the links of contributors."""
