use super::*;
use arrow::datatypes::*;

fn decoder(schema: &str, unit: TimeUnitName) -> Decoder {
    let spec: crate::schema::SchemaSpec = serde_json::from_str(schema).unwrap();
    Decoder::new(spec.resolve("schema").unwrap(), unit)
}

fn trades() -> Decoder {
    decoder("\"trade\"", TimeUnitName::Ms)
}

#[test]
fn a_trade_is_read_in_any_of_the_ways_venues_write_it() {
    let mut d = trades();
    for raw in [
        r#"{"ts":"2024-01-02T03:04:05.123Z","symbol":"BTC","price":101.5,"size":2}"#,
        r#"{"size":"2.0","price":"101.5","extra":{"a":[1,{}]},"symbol":"BTC","ts":1704164645123}"#,
        r#" {"symbol":"ETH","symbol":"BTC","ts":"1704164645123","price":1.015e2,"size":2.0} "#,
        r#"{"ts":1704164645123.0,"symbol":"\u0042TC","price":101.5,"size":2}"#,
    ] {
        d.push(raw.as_bytes()).unwrap();
    }
    let rows = d.finish();
    assert_eq!(rows.num_rows(), 4);
    for i in 0..4 {
        let ts = rows.column(0).as_primitive::<TimestampNanosecondType>().value(i);
        assert_eq!(ts, 1_704_164_645_123_000_000);
        assert_eq!(crate::row::text(rows.column(1), i), Some("BTC"));
        assert_eq!(rows.column(2).as_primitive::<Float64Type>().value(i), 101.5);
        assert_eq!(rows.column(3).as_primitive::<Float64Type>().value(i), 2.0);
    }
    assert_eq!(d.finish().num_rows(), 0);
}

#[test]
fn bad_messages_say_what_is_wrong_and_leave_the_good_rows_alone() {
    let good = r#"{"ts":1,"symbol":"A","price":1,"size":1}"#;
    let mut d = trades();
    d.push(good.as_bytes()).unwrap();
    for (raw, reason) in [
        ("", "not valid JSON: EOF while parsing a value at line 1 column 0"),
        (r#"{"ts":1"#, "not valid JSON: EOF while parsing an object at line 1 column 7"),
        ("[1]", "expected a JSON object, found a list"),
        ("null", "expected a JSON object, found null"),
        ("7", "expected a JSON object, found the number 7"),
        (r#"{"ts":1,"symbol":"A","price":1}"#, "column `size` is missing"),
        (r#"{"ts":1,"symbol":null,"price":1,"size":1}"#, "column `symbol` is null"),
        (r#"{"ts":1,"symbol":5,"price":1,"size":1}"#, "column `symbol`: expected text, found the number 5"),
        (
            r#"{"ts":1,"symbol":"A","price":"NaN","size":1}"#,
            "column `price`: expected f64, found the text \"NaN\"",
        ),
        (
            r#"{"ts":1,"symbol":"A","price":"-Infinity","size":1}"#,
            "column `price`: expected f64, found the text \"-Infinity\"",
        ),
        (
            r#"{"ts":1,"symbol":"A","price":"1e999","size":1}"#,
            "column `price`: expected f64, found the text \"1e999\"",
        ),
        (r#"{"ts":1,"symbol":"A","price":{},"size":1}"#, "column `price`: expected f64, found an object"),
        (r#"{"ts":1,"symbol":"A","price":true,"size":1}"#, "column `price`: expected f64, found true"),
        (
            r#"{"ts":9223372036854775807,"symbol":"A","price":1,"size":1}"#,
            "column `ts`: expected a timestamp (RFC 3339 text, or a number since the epoch), found the number 9223372036854775807",
        ),
        (
            r#"{"ts":"3000-01-01T00:00:00Z","symbol":"A","price":1,"size":1}"#,
            "column `ts`: expected a timestamp (RFC 3339 text, or a number since the epoch), found the text \"3000-01-01T00:00:00Z\"",
        ),
    ] {
        assert_eq!(d.push(raw.as_bytes()).unwrap_err(), reason, "{raw}");
    }
    for raw in [
        r#"{"ts":1,"symbol":"A","price":NaN,"size":1}"#,
        &format!("{good}{good}"),
        "{\"ts\":1,\"symbol\":\"\u{1}",
    ] {
        assert!(d.push(raw.as_bytes()).unwrap_err().starts_with("not valid JSON: "), "{raw}");
    }
    assert!(d.push(b"{\"symbol\":\"\xff\"}").is_err());
    // Nesting deeper than a stack is an error too.
    assert!(d.push(format!("{{\"x\":{}", "[".repeat(100_000)).as_bytes()).is_err());
    d.push(good.as_bytes()).unwrap();
    assert_eq!(d.finish().num_rows(), 2);
}

#[test]
fn integers_dates_and_nulls() {
    let mut d = decoder(r#"{"i":"i64?","u":"u64","d":"date?","b":"bool?"}"#, TimeUnitName::Ns);
    d.push(br#"{"i":"-9223372036854775808","u":18446744073709551615,"d":"1969-12-31","b":false}"#).unwrap();
    d.push(br#"{"i":1e3,"u":"7","d":null}"#).unwrap();
    for bad in [
        r#"{"u":-1}"#,
        r#"{"u":1.5}"#,
        r#"{"u":18446744073709551616}"#,
        r#"{"u":1,"d":"2024-02-30"}"#,
        r#"{"u":1,"b":"true"}"#,
    ] {
        assert!(d.push(bad.as_bytes()).is_err(), "{bad}");
    }
    let rows = d.finish();
    assert_eq!(rows.column(0).as_primitive::<Int64Type>().values()[..], [i64::MIN, 1000]);
    assert_eq!(rows.column(1).as_primitive::<UInt64Type>().values()[..], [u64::MAX, 7]);
    assert_eq!(rows.column(2).as_primitive::<Date32Type>().value(0), -1);
    assert!(rows.column(2).is_null(1) && rows.column(3).is_null(1));
}

#[test]
fn lists_of_numbers_are_read_and_others_refused() {
    let list = DataType::List(Arc::new(Field::new_list_field(DataType::Float64, false)));
    let fields = vec![Field::new("a", list.clone(), false), Field::new("b", list, true)];
    let mut d = Decoder::new(Arc::new(Schema::new(fields)), TimeUnitName::Ms);
    for good in [r#"{"a":[1,2.5,"3.25"],"b":null}"#, r#"{"a":[],"b":[-1]}"#, r#"{"a":[7],"a":[8,9]}"#] {
        d.push(good.as_bytes()).unwrap();
    }
    for (bad, reason) in [
        (r#"{"a":[1,null]}"#, "column `a`: expected a list of numbers, found a list with something else"),
        (r#"{"a":[[1]]}"#, "column `a`: expected a list of numbers, found a list with something else"),
        (r#"{"a":["NaN"]}"#, "column `a`: expected a list of numbers, found a list with something else"),
        (r#"{"a":1}"#, "column `a`: expected a list of numbers, found the number 1"),
        (r#"{"a":{}}"#, "column `a`: expected a list of numbers, found an object"),
        (r#"{"b":[1]}"#, "column `a` is missing"),
        (r#"{"a":[1"#, "not valid JSON: EOF while parsing a list at line 1 column 7"),
    ] {
        assert_eq!(d.push(bad.as_bytes()).unwrap_err(), reason);
    }
    let rows = d.finish();
    let list = |c: usize, i: usize| {
        let lists = rows.column(c).as_list::<i32>();
        (!lists.is_null(i)).then(|| lists.value(i).as_primitive::<Float64Type>().values().to_vec())
    };
    assert_eq!(
        [list(0, 0), list(0, 1), list(0, 2)],
        [Some(vec![1.0, 2.5, 3.25]), Some(vec![]), Some(vec![8.0, 9.0])]
    );
    assert_eq!([list(1, 0), list(1, 1), list(1, 2)], [None, Some(vec![-1.0]), None]);
}
