"""What is published of a unit, as plain data: records, tables, their schema and measures. Nothing here needs torch."""
