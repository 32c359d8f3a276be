"""What an evaluation writes for people: tables, figures, mistakes."""
