"""The methods: what is trained and how, in torch alone; no files, no settings of a study, no tables."""
