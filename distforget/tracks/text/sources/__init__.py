"""Where question-answer pairs come from: built-in fictitious people, files, the datasets hub."""
