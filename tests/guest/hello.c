/* What the guest's compiler compiles. */
#include <stdio.h>
#include <stdlib.h>

static long factorial(int n)
{
	return n < 2 ? 1 : n * factorial(n - 1);
}

int main(int argc, char **argv)
{
	printf("hello %ld\n", factorial(argc > 1 ? atoi(argv[1]) : 3));
	return 0;
}
