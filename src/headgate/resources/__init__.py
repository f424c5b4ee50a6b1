"""What an operator declares: one module per noun, one class for the configuration file, the admin API and the store.

A class says which fields there are and which values they take; its methods make the frozen noun of ``model`` that the
data plane holds.  Where the file and the API spell a noun differently (an API's limits, a file's shorthands), both
classes stand beside each other and share their field types.  Owns no table and no route.
"""
