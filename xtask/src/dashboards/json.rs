//! A dashboard as Grafana's JSON.

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::{Dashboard, Panel, Show};

/// The JSON, with a final newline.
pub fn text(dashboard: &Dashboard) -> Result<String> {
    Ok(serde_json::to_string_pretty(&of(dashboard))? + "\n")
}

fn source() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

fn of(dashboard: &Dashboard) -> Value {
    let (mut panels, mut y, mut id) = (Vec::new(), 0, 0);
    let mut next = || {
        id += 1;
        id
    };
    for (title, row) in &dashboard.rows {
        panels.push(json!({
            "id": next(), "type": "row", "title": title, "collapsed": false, "panels": [],
            "gridPos": { "x": 0, "y": y, "w": 24, "h": 1 },
        }));
        y += 1;
        let (mut x, mut height) = (0, 0);
        for it in row {
            if x + it.width > 24 {
                (x, y, height) = (0, y + height, 0);
            }
            let place = json!({ "x": x, "y": y, "w": it.width, "h": it.height() });
            panels.push(panel(it, next(), &place));
            (x, height) = (x + it.width, height.max(it.height()));
        }
        y += height;
    }
    json!({
        "uid": format!("falco-operator-{}", dashboard.name),
        "title": dashboard.title,
        "description": dashboard.purpose,
        "tags": ["falco", "falco-operator"],
        "links": [{
            "type": "dashboards", "title": "Falco operator", "tags": ["falco-operator"], "asDropdown": true,
            "includeVars": true, "keepTime": true,
        }],
        "schemaVersion": 39,
        "version": 1,
        "editable": true,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": { "from": "now-6h", "to": "now" },
        "timezone": "browser",
        "templating": { "list": variables(dashboard) },
        "panels": panels,
    })
}

fn variables(dashboard: &Dashboard) -> Vec<Value> {
    let mut list = vec![json!({
        "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "hide": 0,
    })];
    if let Some((name, metric)) = dashboard.variable {
        let query = format!("label_values({metric}, {name})");
        list.push(json!({
            "name": name, "label": name, "type": "query", "datasource": source(), "definition": query,
            "query": { "query": query, "refId": "Choices" }, "refresh": 2, "sort": 1, "multi": false,
            "includeAll": false, "hide": 0,
        }));
    }
    list
}

impl Panel {
    const fn height(&self) -> u32 {
        match self.show {
            Show::Number | Show::Word => 4,
            Show::Lines | Show::Areas | Show::Bars | Show::Table => 8,
        }
    }
}

fn panel(panel: &Panel, id: u32, place: &Value) -> Value {
    let steps: Vec<Value> = panel
        .steps
        .iter()
        .enumerate()
        .map(|(at, (from, color))| json!({ "color": color, "value": if at == 0 { Value::Null } else { json!(from) } }))
        .collect();
    let over_time = matches!(panel.show, Show::Lines | Show::Areas);
    let custom = if over_time {
        let (fill, stack) = if panel.show == Show::Areas { (40, "normal") } else { (8, "none") };
        // One step has no border to draw.
        let style = if panel.steps.len() > 1 { "line" } else { "off" };
        json!({
            "lineWidth": 2, "fillOpacity": fill, "showPoints": "never", "spanNulls": true,
            "stacking": { "mode": stack, "group": "A" }, "thresholdsStyle": { "mode": style },
            "axisSoftMin": 0,
        })
    } else {
        json!({})
    };
    let color = if over_time { "palette-classic" } else { "thresholds" };
    let mut shown = json!({
        "id": id,
        "type": match panel.show {
            Show::Number | Show::Word => "stat",
            Show::Lines | Show::Areas => "timeseries",
            Show::Bars => "bargauge",
            Show::Table => "table",
        },
        "title": panel.title,
        "description": panel.question,
        "datasource": source(),
        "gridPos": place,
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": if panel.unit == "percentunit" { json!(0) } else { Value::Null },
                "max": if panel.unit == "percentunit" { json!(1) } else { Value::Null },
                "color": { "mode": color },
                "thresholds": { "mode": "absolute", "steps": steps },
                "custom": custom,
            },
            "overrides": [],
        },
        "options": options(panel),
        "targets": targets(panel),
    });
    if panel.show == Show::Table
        && let Some(shown) = shown.as_object_mut()
    {
        shown.insert("transformations".to_owned(), columns(panel));
    }
    shown
}

fn options(panel: &Panel) -> Value {
    let last = json!({ "calcs": ["lastNotNull"], "fields": "", "values": false });
    match panel.show {
        Show::Number => {
            json!({ "reduceOptions": last, "colorMode": "background", "graphMode": "none", "textMode": "value" })
        }
        Show::Word => {
            json!({ "reduceOptions": last, "colorMode": "background", "graphMode": "none", "textMode": "name" })
        }
        Show::Lines | Show::Areas => json!({
            "legend": { "displayMode": "list", "placement": "bottom", "showLegend": true },
            "tooltip": { "mode": "multi", "sort": "desc" },
        }),
        Show::Bars => {
            json!({ "reduceOptions": last, "orientation": "horizontal", "displayMode": "basic", "showUnfilled": true })
        }
        Show::Table => json!({ "showHeader": true, "cellHeight": "sm" }),
    }
}

fn targets(panel: &Panel) -> Vec<Value> {
    let over_time = matches!(panel.show, Show::Lines | Show::Areas);
    let target = |(at, (expr, legend)): (usize, &(&str, &str))| {
        json!({
            "refId": letter(at), "datasource": source(), "expr": expr, "legendFormat": legend,
            "instant": !over_time, "range": over_time,
            "format": if panel.show == Show::Table { "table" } else { "time_series" },
        })
    };
    panel.queries.iter().enumerate().map(target).collect()
}

/// The answers as one table, whose columns have the queries' names.
fn columns(panel: &Panel) -> Value {
    let name = |at: usize| if panel.queries.len() == 1 { "Value".to_owned() } else { format!("Value #{}", letter(at)) };
    let names: Map<String, Value> =
        panel.queries.iter().enumerate().map(|(at, (_, legend))| (name(at), json!(legend))).collect();
    json!([
        { "id": "merge", "options": {} },
        { "id": "organize", "options": { "excludeByName": { "Time": true }, "renameByName": names } },
    ])
}

fn letter(at: usize) -> String {
    char::from(b'A' + (at % 26) as u8).to_string()
}
