"""marginbench: which preference-optimisation method is really better?

The library behind the workflow. It never sees the `snakemake` object; only `workflow/scripts` does. Importing this
package imports nothing heavy: each room imports what it needs.
"""

__version__ = "0.1.0"
