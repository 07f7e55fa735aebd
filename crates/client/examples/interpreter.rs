//! Runs code with state between cells, follows output, and keeps contexts apart.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use warren_client::{Cell, CellEvent, Client, Config, NewSandbox};

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::new(Config::from_env()?)?;
    let new = NewSandbox {
        template_id: "code-interpreter-v1".into(),
        timeout: Some(180),
        ..NewSandbox::default()
    };
    let sandbox = client.create(&new).await?;
    let interpreter = sandbox.interpreter();

    interpreter.run("x = 20").await?;
    let execution = interpreter.run("print('so'); x + 1").await?;
    assert_eq!(execution.stdout, "so\n");
    assert_eq!(execution.text(), Some("21"));

    let failed = interpreter.run("1 / 0").await?;
    assert_eq!(failed.error.expect("it raises").name, "ZeroDivisionError");

    let cell =
        Cell::new("import time\nfor i in range(3):\n    print(i, flush=True)\n    time.sleep(0.1)");
    let mut running = interpreter.start(cell).await?;
    let mut seen = String::new();
    while let Some(event) = running.next().await? {
        match event {
            CellEvent::Stdout(text) => seen.push_str(&text),
            CellEvent::Result(result) => println!("{:?}", result.text),
            other => println!("{other:?}"),
        }
    }
    assert_eq!(seen, "0\n1\n2\n");

    let plot = "import matplotlib.pyplot as plt\nplt.plot([1, 4, 9])\nplt.show()";
    let shown = interpreter.run(plot).await?;
    let picture = &shown.results[0];
    assert!(picture.png.is_some(), "base64 of a picture");
    let chart = picture.chart.as_ref().expect("a plot has one");
    assert_eq!(chart["type"], "line");

    let script = Cell::new("console.log(process.env.WHO)").language("javascript");
    let spoken = interpreter.run(script.env("WHO", "me")).await?;
    assert_eq!(spoken.stdout, "me\n");

    let context = interpreter
        .create_context(Some("python"), Some("/tmp"))
        .await?;
    let lost = interpreter.run(Cell::new("x").context(&context)).await?;
    assert_eq!(lost.error.expect("x is elsewhere").name, "NameError");
    interpreter.restart_context(&context.id).await?;
    assert!(interpreter.contexts().await?.contains(&context));
    interpreter.remove_context(&context.id).await?;

    sandbox.kill().await?;
    Ok(())
}
