"""How good a judge is: metrics, intervals, floors, human ceiling, reports. No torch here."""
