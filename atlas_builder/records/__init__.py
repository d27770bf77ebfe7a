"""Published data of units: records, tables, their schema and measures. Nothing here needs torch."""
