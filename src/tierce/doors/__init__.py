"""HTTP dialects over one service. A door translates: it decides nothing, and knows no other door."""
