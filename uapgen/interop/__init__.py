"""Bridges to other toolkits; each module imports its toolkit when it is imported itself."""
