"""What a run shows: tables, figures and the model card. Takes plain data, returns text or pictures."""
