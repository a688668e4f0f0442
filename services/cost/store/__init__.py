"""Where the cost service keeps its books. Only this package touches SQLAlchemy."""
