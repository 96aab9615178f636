"""The reporting half: tables and figures out of the result files alone; torch is never imported here."""
