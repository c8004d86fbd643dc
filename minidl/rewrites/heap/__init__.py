"""How memory is had on a CPU: what a program makes on its way stays with the heap from call to call."""
