"""Beat's schedule in the form that the server computes with."""
