# The shell's share of the bench: many short processes.
n=0
for i in {1..30}; do
	v=$(echo $((i * 3)))
	n=$((n + v))
	/bin/busybox true
done
echo $n | /bin/busybox cat
