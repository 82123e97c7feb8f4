"""Commands from functions: the settings of a function are written once, where the function is.

The settings of a command are the fields of the configuration that its function takes, or the function's own parameters
that are annotated `Annotated[type, Field(description=..., ge=...)]`. Each becomes an option with that name, default and
description (`learning_rate` is `--learning-rate`, nested fields have a dot). On the command line every value is text;
what the text means is decided by the field (`synthgen.config`), as in a YAML file.
"""
