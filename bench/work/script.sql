create table item(id integer primary key, name text, price int, kind int);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 8000)
insert into item select i, 'item' || (i * 7919 % 8000), i * 31 % 997, i % 17 from n;
create index by_kind on item(kind, price);
select kind, count(*), sum(price), max(name) from item group by kind order by kind;
select count(*) from item a join item b on a.kind = b.kind and a.price = b.price where a.id < 800;
update item set price = price + 1 where name like '%77%';
delete from item where price % 5 = 0;
select count(*), sum(length(name)) from item;
