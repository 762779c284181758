from tests.site import Site
import cdp
async def test_smoke(page: cdp.Page, site: Site) -> None:
    await page.navigate(site.url("/ok"))
    assert "Hello" in await page.html()
