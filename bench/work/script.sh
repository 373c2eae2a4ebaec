# The shell's share of the bench: no processes but the shell's own.
i=0
sum=0
words="alpha beta gamma delta"
while [ $i -lt 15000 ]; do
	case $((i % 4)) in
	0) sum=$((sum + i)) ;;
	1) w=${words%% *} ;;
	2) words="${words#* } $w" ;;
	*) sum=$((sum ^ ${#words})) ;;
	esac
	i=$((i + 1))
done
echo $sum "$words"
