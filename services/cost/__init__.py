"""Cost: prices, holds, usage, budgets and spend. Money is integer nano-USD everywhere."""
